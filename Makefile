# make            builds the programs into bin/
# make try        builds, then delivers messages through servers of its own
# make check      vet, staticcheck, manual pages, sums of modules, every test under the race
#                 detector; lists in the end what was not tested, and what is missing for it
# make test       the tests of make check alone
# make bench      prints the table of doc/FIGURES.md
# make bench-loops  runs the Go benchmarks of the hot loops, with allocations
# make install    copies what was built to $(DESTDIR)$(HOME_DIR)/bin; it builds nothing
# make dist       makes a release of the commit in dist/: archives and packages for all systems
#                 and processors, or for TARGETS=linux-amd64,freebsd-arm64
# make cross      vet for each of these systems and processors
# make clean      removes bin/ and dist/

GO       ?= go
BIN      ?= bin
MAN_DIR  ?= /usr/local/share/man
DOC_DIR  ?= /usr/local/share/doc/mxf
DESTDIR  ?=
DIST     ?= dist
TARGETS  ?=

# The qmail home is compiled in. It is /var/qmail, or the HOME_DIR that make was given last:
# $(BIN)/.home remembers it, so that make install knows for which home it was built.
HOME_DIR ?=

PROGRAMS = mxf-remote mxf-rspawn mxf-remote-smtpc mxf-remote-qmtpc mxf-tlsc mxf-ucspitlsc mxf-policy mxf-check qmail-remote-io
SAFE     = mxf-remote-safe
CHAIN    = nightmare.mail/mxf/cmd/internal/chain

# The commit, for --version. A tree that git archive made has it in cmd/internal/chain/stamp.
COMMIT = $$(if [ -e .git ]; then git log -1 --format='%H %ct'; \
	  [ -z "$$(git status --porcelain)" ] || echo modified; fi 2>/dev/null)

all:
	@mkdir -p $(BIN)
	@built=$$(cat $(BIN)/.home 2>/dev/null); home='$(HOME_DIR)'; home=$${home:-$${built:-/var/qmail}}; \
	case $$home in /*) ;; *) echo "HOME_DIR is $$home, which does not begin with /" >&2; exit 1;; esac; \
	if [ "$$home" != "$$built" ]; then \
	  echo "$(BIN)/ is built for the qmail home $$home"; \
	  for p in $(PROGRAMS) $(SAFE); do rm -f $(BIN)/$$p; done; \
	  echo "$$home" >$(BIN)/.home; \
	fi; \
	commit=$$(echo $(COMMIT)); \
	CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -ldflags "-s -w -X $(CHAIN).home=$$home -X '$(CHAIN).commit=$$commit'" -o $(BIN)/ ./cmd/... && \
	sed "s|@HOME@|$$home|" scripts/$(SAFE) >$(BIN)/$(SAFE) && chmod 755 $(BIN)/$(SAFE)

try:
	@echo 'Building the programs; the first time this takes a minute or two.'
	@$(MAKE) --no-print-directory all
	@$(BIN)/mxf-try

check:
	@$(GO) run -buildvcs=false ./integration/check

test:
	@$(GO) run -buildvcs=false ./integration/check -tests

bench:
	@$(GO) run -buildvcs=false ./integration/bench

bench-loops:
	@$(GO) test -run '^$$' -bench . -benchmem ./...

# Each program is renamed into its place: a delivery that finds no program bounces.
install:
	@built=$$(cat $(BIN)/.home 2>/dev/null); home='$(HOME_DIR)'; home=$${home:-$$built}; \
	for p in $(PROGRAMS) $(SAFE); do \
	  if [ ! -x $(BIN)/$$p ] || [ -z "$$built" ]; then echo "$(BIN)/$$p is not built: run make first" >&2; exit 1; fi; \
	done; \
	if [ "$$home" != "$$built" ]; then \
	  echo "$(BIN)/ is built for the qmail home $$built: run make HOME_DIR=$$home first" >&2; exit 1; \
	fi; \
	to='$(DESTDIR)'$$home/bin man='$(DESTDIR)$(MAN_DIR)' doc='$(DESTDIR)$(DOC_DIR)'; \
	install -d "$$to" "$$man/man5" "$$man/man8" "$$doc/LICENSES" && \
	for p in $(PROGRAMS) $(SAFE); do \
	  install -m 755 $(BIN)/$$p "$$to/$$p.new" && mv -f "$$to/$$p.new" "$$to/$$p" || exit 1; \
	done && \
	install -m 644 doc/*.5 "$$man/man5" && install -m 644 doc/*.8 "$$man/man8" && \
	(cd doc && find examples -type f) | while read -r f; do \
	  install -d "$$doc/$${f%/*}" && install -m 644 "doc/$$f" "$$doc/$$f" || exit 1; done && \
	install -m 644 LICENSE "$$doc" && install -m 644 LICENSES/* "$$doc/LICENSES" && \
	echo "installed: the programs in $$to, the manual in $$man, examples and licences in $$doc"

# The whole of a release; doc/RELEASE.md has the rest of the recipe.
dist:
	@rm -rf $(DIST)
	@$(GO) run -buildvcs=false ./integration/dist -o $(DIST) -targets '$(TARGETS)'

cross:
	@$(GO) run -buildvcs=false ./integration/check -cross

clean:
	rm -rf $(BIN) $(DIST)

.PHONY: all try check test cross bench bench-loops install dist clean
