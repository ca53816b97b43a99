// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// How a program that includes a library's headers tells what it sees of them: one
// line for each thing, "kind name number". A "-" is what the headers do not have. The
// lines that ask come after this text and are made from abi.txt.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

namespace fl {
using std::string;

struct absent;
static void say(const char *kind, const char *name, const string &what) { std::printf("%s %s %s\n", kind, name, what.c_str()); }

// An object that is nobody's: each slot of its table notes its own number.
static int hit = -1;
template <int I> void note(void *) { hit = I; }
struct table {
	void *slots[256];
	template <int... I> table(std::integer_sequence<int, I...>) : slots{(void *)&note<I>...} {}
};
static void *nobody() {
	static table t{std::make_integer_sequence<int, 256>{}};
	static void *object[512];
	object[0] = t.slots;
	hit = -1;
	return object;
}

// What a type is for a call.
template <class T> constexpr int sort() {
	return std::is_void<T>::value ? 0 : std::is_reference<T>::value || std::is_pointer<T>::value ? 1 : std::is_same<T, bool>::value ? 2 : std::is_enum<T>::value ? 3 : std::is_integral<T>::value ? 4 : std::is_floating_point<T>::value ? 5 : 6;
}
template <class T, int = sort<T>()> struct type;
template <class T> struct type<T, 0> { static string is() { return "void"; } };
template <class T> struct type<T, 1> { static string is() { return "ptr"; } };
template <class T> struct type<T, 2> { static string is() { return "bool"; } };
template <class T> struct type<T, 3> { static string is() { return type<typename std::underlying_type<T>::type>::is(); } };
template <class T> struct type<T, 4> { static string is() { return (std::is_signed<T>::value ? "i" : "u") + std::to_string(8 * sizeof(T)); } };
template <class T> struct type<T, 5> { static string is() { return "f" + std::to_string(8 * sizeof(T)); } };
// A struct that is not plain is passed by a hidden pointer: never what the table says.
template <class T> struct type<T, 6> { static string is() { return (std::is_trivially_copyable<T>::value ? "struct" : "object") + std::to_string(sizeof(T)); } };

template <class R, class... A> string call() {
	string s, comma;
	int unused[] = {0, (s += comma + type<typename std::remove_cv<A>::type>::is(), comma = ",", 0)...};
	(void)unused;
	return type<typename std::remove_cv<R>::type>::is() + "(" + s + ")";
}

// The slot that a pointer to a method holds; the two ABIs keep the mark of a virtual
// one in different words.
template <class F> string slot(F f) {
	std::ptrdiff_t w[2];
	static_assert(sizeof f == sizeof w, "a pointer to a method is two words");
	std::memcpy(w, &f, sizeof w);
#ifdef __aarch64__
	return w[1] & 1 ? std::to_string(w[0] / 8) : "plain";
#else
	return w[0] & 1 ? std::to_string((w[0] - 1) / 8) : "plain";
#endif
}
struct seen { string slot, call; };
template <class R, class T, class... A> seen method(R (T::*f)(A...)) { return {slot(f), call<R, A...>()}; }
template <class R, class T, class... A> seen method(R (T::*f)(A...) const) { return {slot(f), call<R, A...>()}; }
template <class... A> struct pick {
	template <class R, class T> static seen method(R (T::*f)(A...)) { return fl::method(f); }
	template <class R, class T> static seen method(R (T::*f)(A...) const) { return fl::method(f); }
};
static void tell(const char *name, const seen &s) { say("slot", name, s.slot), say("call", name, s.call); }

// The number of slots: where a further method would go.
template <class T> struct longer : T { virtual void last(); };
template <class T, std::size_t = sizeof(T)> string length(int) { return slot(&longer<T>::last); }
template <class T> string length(...) { return "-"; }

// The slot that delete calls.
template <class T> auto deleting(int) -> decltype(sizeof(T), delete std::declval<T *>(), string()) {
	if (!std::has_virtual_destructor<T>::value) return "plain";
	delete (T *)nobody();
	return std::to_string(hit);
}
template <class T> string deleting(...) { return "-"; }

template <class T> auto info(int) -> decltype(std::declval<T &>().T::getInterfaceInfo().kind, string()) {
	auto i = ((T *)nobody())->T::getInterfaceInfo();
	return string(i.kind) + "/" + std::to_string(i.major) + "/" + std::to_string(i.minor);
}
template <class T> string info(...) { return "-"; }

template <class T, std::size_t = sizeof(T)> string size(int) { return type<T>::is(); }
template <class T> string size(...) { return "-"; }

template <class F> struct function { static string is() { return "-"; } };
template <class R, class... A> struct function<R (*)(A...)> { static string is() { return call<R, A...>(); } };
} // namespace fl

#define FL_METHOD(id, m) \
	template <class T> auto id(int)->decltype(fl::method(&T::m)) { return fl::method(&T::m); } \
	template <class T> fl::seen id(...) { return {"-", "-"}; }
#define FL_OVERLOAD(id, m, ...) \
	template <class T> auto id(int)->decltype(fl::method(&T::m)) { return fl::method(&T::m); } \
	template <class T> auto id(long)->decltype(fl::pick<__VA_ARGS__>::method(&T::m)) { return fl::pick<__VA_ARGS__>::method(&T::m); } \
	template <class T> fl::seen id(...) { return {"-", "-"}; }
#define FL_VALUE(id, v) \
	template <class T> auto id(int)->decltype((long long)T::v, fl::string()) { return std::to_string((long long)T::v); } \
	template <class T> fl::string id(...) { return "-"; }
#define FL_FIELD(id, f) \
	template <class T> auto id(int)->decltype((void)std::declval<T &>().f, fl::string()) { return std::to_string((char *)&((T *)fl::nobody())->f - (char *)fl::nobody()); } \
	template <class T> fl::string id(...) { return "-"; }
#define FL_ITEM(id, f) \
	template <class T> auto id(int)->decltype((void)std::declval<T &>().f[0], fl::string()) { return std::to_string(sizeof(((T *)fl::nobody())->f[0])); } \
	template <class T> fl::string id(...) { return "-"; }
// Where a public object keeps the pointer to its implementation, a protected member.
#define FL_MEMBER(id, m) \
	template <class T, class V> struct id##_in : T { \
		template <class U> static auto at(int)->decltype((void)std::declval<U &>().m, fl::string()) { \
			U *u = (U *)fl::nobody(); \
			return std::is_same<decltype(u->m), V *>::value ? std::to_string((char *)&u->m - (char *)u) : "other"; \
		} \
		template <class U> static fl::string at(...) { return "none"; } \
	}; \
	template <class T, class V, std::size_t = sizeof(T)> fl::string id(int) { return id##_in<T, V>::template at<id##_in<T, V>>(0); } \
	template <class T, class V> fl::string id(...) { return "-"; }
