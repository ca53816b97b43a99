// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// A small library of our own, in three versions, for the prover to look at. It has one
// of each thing that abi.txt can say.
#pragma once
#include <cstddef>
#include <cstdint>

namespace zoo {

enum class Colour : int {
	kRED = 0,
#if NV_TENSORRT_MAJOR == 1
	kBLUE = 1,
#else
	kGREEN = 1,
	kBLUE = 2,
#endif
};

struct Box {
	int32_t n;
#if NV_TENSORRT_MAJOR == 1
	int32_t d[4];
#else
	int64_t d[4];
#endif
};

#if NV_TENSORRT_MAJOR == 2
struct Card {
	char const *kind;
	int32_t major, minor;
};
#endif

namespace inner {
struct VKeeper {
	virtual ~VKeeper() noexcept = default;
#if NV_TENSORRT_MAJOR == 2
	virtual bool lock() noexcept = 0;
	virtual int32_t feed(void const *food, std::size_t bytes, int32_t often) noexcept = 0;
#endif
	virtual int32_t feed(void const *food, std::size_t bytes) noexcept = 0;
	virtual Colour colour(char const *name) const noexcept = 0;
	virtual Box box() const noexcept = 0;
#if NV_TENSORRT_MAJOR == 1
	virtual void move(Box to) noexcept = 0;
#else
	virtual void move(Box const &to) noexcept = 0;
#endif
#if NV_TENSORRT_MAJOR > 1 || NV_TENSORRT_MINOR >= 2
	virtual void sleep(bool deep) noexcept = 0;
#endif
};
} // namespace inner

struct Keeper {
	virtual ~Keeper() noexcept = default;

protected:
	inner::VKeeper *mImpl;
};

#if NV_TENSORRT_MAJOR == 2
class Listener {
public:
	virtual Card getInterfaceInfo() const noexcept { return Card{"Listener", 1, 0}; }
	virtual void hear(char const *what) noexcept = 0;

protected:
	virtual ~Listener() = default;
};
#endif

} // namespace zoo

extern "C" void *makeKeeper(void *listener, int32_t version) noexcept;
#if NV_TENSORRT_MAJOR == 2
extern "C" int32_t zooMajor() noexcept;
#endif
