// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

namespace zoo {
class Gate {
public:
	virtual void open(int width) = 0;
	virtual ~Gate() {}
	virtual int width() const = 0;
};
} // namespace zoo
