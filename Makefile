# fulmar: everything a person or a machine does with this repository.
#
#   make run     the main job: a fleet server and one board on this machine
#   make test    all tests
#
# Both install what is missing where they may, or say in one line what to type.

SHELL      := /bin/bash
GO         ?= go
RELEASE    := $(or $(RELEASE),$(shell cross/version))
LDFLAGS    := -s -w -X main.release=$(RELEASE)
STATIC     := CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)'
TOOL       := $(GO) tool -modfile=tools.mod
SECONDS    ?= 0
CHECK      ?= 0
TPM        ?= 0
BOARDS     ?= 0
export GOFLAGS ?= -buildvcs=false

.PHONY: run test build gates race fuzz cross test-cross packages test-packages arm64 bench soak man ort axe trt-libs test-trt-libs test-trt-arm64 smoke-arm64 test-arm64 test-cuda test-trt verify-trt-abi test-systemd test-gpio clean help

help: ## what there is to do
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

run: build ort ## a fleet and one board on loopback, and how to update it; SECONDS=30 CHECK=1 checks and ends; TPM=1 with a TPM; BOARDS=50 simulated boards beside it
	@$(if $(filter 1,$(TPM)),cross/need swtpm)
	@exec bin/local -dir run$(if $(filter 1,$(TPM)),-tpm) -seconds $(SECONDS) $(if $(filter 1,$(CHECK)),-check) $(if $(filter 1,$(TPM)),-tpm) $(if $(filter-out 0,$(BOARDS)),-boards $(BOARDS))

build: ## the programs, into bin/
	@mkdir -p bin
	@$(STATIC) -o bin/fulmar ./cmd/fulmar
	@$(STATIC) -o bin/fulmard ./cmd/fulmard
	@$(STATIC) -o bin/fulmar-fleet ./cmd/fulmar-fleet
	@$(STATIC) -o bin/fulmar-launch ./cmd/fulmar-launch
	@$(STATIC) -o bin/fulmar-rootfs ./cmd/fulmar-rootfs
	@CGO_ENABLED=1 $(GO) build -ldflags '$(LDFLAGS)' -o bin/fulmar-infer ./cmd/fulmar-infer
	@$(STATIC) -o bin/local ./tests/local/cmd/local

man: ## manual pages into out/man, completions into out/completions
	@rm -rf out/man out/completions
	@GOOS= GOARCH= SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(GO) run ./cross/man --out out --release '$(RELEASE)'

ort: ## ONNX Runtime, into .cache/ (once)
	@cross/ort/fetch

axe: ## axe-core, which the pages are held against, into .cache/ (once)
	@cross/axe/fetch

test: ort axe build ## all tests but those that have a target of their own (mosquitto, chromium, swtpm and the like are installed if they are missing)
	@cross/need g++ mosquitto chromium e2fsprogs mount swtpm swtpm-tools tpm2-tools systemd openssl softhsm2 opensc mandoc curl prometheus-alertmanager prometheus python3 python3-pymodbus python3-serial python3-serial-asyncio socat
	cross/gotest -timeout 14m ./...
	cd tests/peers && $(GO) test ./tuf

gates: ## format, vet (the bench's module too), staticcheck, module sums, static arm64 build
	@bad=$$($(TOOL) gofumpt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofumpt would change:"; echo "$$bad"; exit 1; fi
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofmt would change:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(GO) mod verify
	cd tests/peers && $(GO) vet ./...
	@$(MAKE) --no-print-directory arm64

arm64: ## the static programs for the board, into bin/arm64/
	@RELEASE='$(RELEASE)' cross/build -static bin arm64

cross: ## all programs for arm64 and amd64, the same bytes each time, with checksums, licences and bills, into out/cross/
	@RELEASE='$(RELEASE)' cross/build out/cross arm64 amd64

test-cross: ## that two folders give the same bytes; FULMAR_SAME_BYTES=cold: with an empty compiler cache (minutes)
	FULMAR_SAME_BYTES=$${FULMAR_SAME_BYTES:-all} $(GO) test -count 1 -timeout 20m -v -run SameBytes ./tests/cross

packages: cross man ## Debian packages and the file for sites without a network, into out/packages/; FULMAR_RELEASE_KEY signs
	@cross/need binutils xz-utils zstd
	@rm -rf out/packages
	@RELEASE='$(RELEASE)' cross/package/build out/cross/arm64 arm64 out/packages & arm64=$$!; \
		RELEASE='$(RELEASE)' cross/package/build out/cross/amd64 amd64 out/packages && wait $$arm64
	@RELEASE='$(RELEASE)' cross/package/bundle out/packages arm64 amd64
	@ls -l out/packages | awk 'NR > 1 { printf "%10d  %s\n", $$5, $$9 }'

test-packages: packages ## the packages, installed into Debian 11, 12 and 13 and taken out again; wants root
	@cross/need e2fsprogs mount kmod systemd debootstrap zstd lintian shellcheck
	FULMAR_PACKAGES=1 $(GO) test -count 1 -timeout 20m ./tests/packages/...

race: ort ## the concurrent packages under the race detector, with few of the generated schedules
	cross/gotest -race -short -timeout 14m $$($(GO) list ./... | grep -vE '/tests/|/models/|/cmd/|/house$$|/twin')

fuzz: ## each fuzz target for FUZZTIME (10s)
	@cross/fuzz $${FUZZTIME:-10s}

bench: build ort ## the measures, as a table (docs/benchmarks.md keeps them)
	@cross/need e2fsprogs mount
	@cross/bench

soak: build ort packages ## the long runs: FULMAR_BOARDS (as many as there may be open files), FULMAR_SOAK (1h) of kills, FULMAR_SIM_SEEDS (5000), 1,000 power losses, 10,000 kills of the launcher, 10,000 simulated updates and as many kills of them, FULMAR_CUT (17m) without a network
	@cross/need g++ mosquitto e2fsprogs mount
	CI=true FULMAR_BOARDS=$${FULMAR_BOARDS:-max} $(GO) test -timeout 1h -v -count 1 -run Thousands ./tests/fleet
	CI=true FULMAR_SOAK=$${FULMAR_SOAK:-1h} $(GO) test -timeout 6h -v -count 1 -run Soak ./tests/e2e ./link
	CI=true FULMAR_SIM_SEEDS=$${FULMAR_SIM_SEEDS:-5000} $(GO) test -timeout 2h -count 1 -run 'RandomFaults|Thousand' ./tests/sim ./link/internal/pace
	CI=true FULMAR_SOAK=$${FULMAR_SOAK:-1h} $(GO) test -timeout 1h -v -count 1 -run 'PowerLoss|Control' ./tests/powerloss
	CI=true FULMAR_SOAK=$${FULMAR_SOAK:-1h} $(GO) test -timeout 1h -v -count 1 -run 'Killed|PowerLoss' ./tests/slots
	CI=true FULMAR_SOAK=$${FULMAR_SOAK:-1h} $(GO) test -timeout 2h -v -count 1 -run 'Updates|PowerCuts|Kills' ./tests/ota
	CI=true FULMAR_CUT=$${FULMAR_CUT:-17m} $(GO) test -timeout 1h -v -count 1 -run 'Cut|SeventeenMinutes' ./tests/autonomy
	CI=true FULMAR_PACKAGES=1 FULMAR_CUTS=$${FULMAR_CUTS:-200} FULMAR_VM=amd64 $(GO) test -timeout 3h -v -count 1 -run 'Cut|Systemd' ./tests/packages

trt-libs: ## the NVIDIA libraries that come in packages, into .cache/tensorrt (190 MB, once)
	@cross/trt/fetch

test-trt-libs: trt-libs ## the TensorRT bridge against those libraries; no GPU needed
	FULMAR_TRT_REAL=1 $(GO) test -count 1 -v -run Real ./inference/trt

test-trt-arm64: ## the TensorRT bridge and its double as arm64 code, emulated
	@cross/need gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
	@mkdir -p bin/arm64
	CC=aarch64-linux-gnu-gcc CGO_ENABLED=1 GOARCH=arm64 $(GO) test -c -o bin/arm64/trt.test ./inference/trt
	cd inference/trt && CC=aarch64-linux-gnu-gcc QEMU_LD_PREFIX=/usr/aarch64-linux-gnu FULMAR_TEST_RUNNER=qemu-aarch64 \
		qemu-aarch64 ../../bin/arm64/trt.test -test.v -test.run 'Engine|Batches|Info|Preprocess|Plans|Life|Lost|Memory|Build' | grep -E '^(---|PASS|FAIL|ok)'

# What could differ by processor: alignment, atomics, fused floats, page size, system calls.
SMOKE = schema device device/jetson device/sensor internal/atomicfile trust storage/vault storage/salvage storage/internal/ranges \
	link/guard link/internal/flights tpm tpm/attest inference/tensor inference/detect agent/config

smoke-arm64: ## tests, a whole board and the worker as arm64 code, emulated; wants root
	@cross/need qemu-user-static debootstrap swtpm swtpm-tools
	@mkdir -p bin
	@$(STATIC) -o bin/foreign ./tests/foreign/cmd/foreign
	CGO_ENABLED=0 GOARCH=arm64 $(GO) test -count 1 -short -timeout 10m -exec $(CURDIR)/bin/foreign $(addprefix ./,$(SMOKE))
	CGO_ENABLED=0 GOARCH=arm64 $(GO) test -count 1 -exec $(CURDIR)/bin/foreign -run 'Conformance|Encrypted|Blob|Order|Ack' ./storage ./link
	@cross/build out/cross arm64
	FULMAR_ARM64=smoke $(GO) test -count 1 -v -timeout 10m ./tests/arm64

test-arm64: man ## all of that, the packages in Debian 11 to 13, and an emulated machine; wants root
	@cross/need qemu-user-static qemu-system-arm debootstrap e2fsprogs kmod
	@rm -rf out/arm64
	@for v in 0.1.0 0.2.0; do export RELEASE=$$v COMPRESSION=none BILLS=out/cross-$$v LICENSES=out/cross-$$v/THIRD-PARTY-LICENSES.txt; \
		cross/build out/cross-$$v arm64 && cross/package/build out/cross-$$v/arm64 arm64 out/arm64 || exit 1; done
	@[ -e out/cross/arm64/fulmar-infer ] || cross/build out/cross arm64
	FULMAR_ARM64=all $(GO) test -count 1 -v -timeout 60m ./tests/arm64

test-cuda: ## on an NVIDIA GPU, driver only: kernels, graphs, a fault and the way back
	FULMAR_GPU=cuda $(GO) test -count 1 -v -run CUDA ./tests/gpu

test-trt: ## on an NVIDIA GPU with TensorRT: everything, and the table; FULMAR_TRT_DIRS names its folders
	FULMAR_GPU=trt $(GO) test -count 1 -v ./tests/gpu

verify-trt-abi: ## the TensorRT tables against headers: TRT_INCLUDE=DIR with NvInfer.h
	@cross/verify-trt-abi $(TRT_INCLUDE)

test-gpio: ## a GPIO line of a real kernel, on an emulated arm64 machine
	@cross/need qemu-system-arm cpio
	FULMAR_VM=arm64 $(GO) test -count 1 -timeout 10m -v ./tests/gpioline

test-systemd: cross ## the units on a real systemd, in a machine (15 min emulated); FULMAR_VM_SUITE=bullseye for an old one
	@cross/need systemd debootstrap e2fsprogs kmod qemu-system-x86
	FULMAR_VM=amd64 $(GO) test -count 1 -timeout 40m -v -run Machine ./tests/units

clean: ## what the build made; the cache stays
	rm -rf bin run run-tpm out
