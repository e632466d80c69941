# make            builds the programs into bin/
# make try        builds, then delivers messages through servers of its own
# make check      vet, staticcheck, manual pages, every test under the race detector
# make bench      the table of figures of doc/DESIGN.md
# make bench-loops  Go benchmarks of the hot loops, with allocations
# make install    copies the programs to $(DESTDIR)$(HOME_DIR)/bin

GO       ?= go
HOME_DIR ?= /var/qmail
MAN_DIR  ?= /usr/local/share/man
DESTDIR  ?=

PROGRAMS = mxf-remote mxf-remote-smtpc mxf-remote-qmtpc mxf-tlsc mxf-ucspitlsc qmail-remote-io
CHAIN    = nightmare.mail/mxf/cmd/internal/chain
LDFLAGS  = -s -w -X $(CHAIN).home=$(HOME_DIR)
BUILD    = CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

all:
	@mkdir -p bin
	@$(BUILD) -o bin/ ./cmd/...

try: all
	@bin/mxf-try

check: vet lint test

vet:
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	@$(GO) vet ./...
	@$(GO) tool staticcheck ./...

# The linter of manual pages may be missing on a fresh machine, but not in CI.
lint:
	@if command -v mandoc >/dev/null; then mandoc -T lint -W warning doc/*.[58]; \
	elif [ "$$CI" = true ]; then echo 'mandoc is missing' >&2; exit 1; \
	else echo 'skipped: the manual pages were not linted, for want of mandoc'; fi

# Tests with servers that are not installed here are skipped, and listed in the end.
test:
	@skipped=$$(mktemp) && trap 'rm -f "$$skipped"' EXIT && \
	tested=$$($(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...) && \
	{ CGO_ENABLED=1 MXF_SKIPPED="$$skipped" $(GO) test -race -timeout 20m $$tested; status=$$?; } && \
	if [ -s "$$skipped" ]; then echo 'SKIPPED, NOT TESTED:' && sort -u "$$skipped"; fi; exit $$status

bench:
	@$(GO) run ./integration/bench

bench-loops:
	@$(GO) test -run '^$$' -bench . -benchmem ./...

# A program is renamed into its place: a delivery that found none would bounce.
install: all
	install -d $(DESTDIR)$(HOME_DIR)/bin $(DESTDIR)$(MAN_DIR)/man5 $(DESTDIR)$(MAN_DIR)/man8
	for p in $(PROGRAMS); do \
	  install -m 755 bin/$$p $(DESTDIR)$(HOME_DIR)/bin/$$p.new && \
	  mv -f $(DESTDIR)$(HOME_DIR)/bin/$$p.new $(DESTDIR)$(HOME_DIR)/bin/$$p || exit 1; \
	done
	install -m 644 doc/*.5 $(DESTDIR)$(MAN_DIR)/man5
	install -m 644 doc/*.8 $(DESTDIR)$(MAN_DIR)/man8

clean:
	rm -rf bin

.PHONY: all try check vet lint test bench bench-loops install clean
