package main

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"nightmare.mail/mxf/cmd/internal/chain"
)

// become has this process see files as a user does. Empty: as the owner of the table of dead
// hosts, if the process is root's.
func become(name string) error {
	if name == "" {
		return chain.Owner(filepath.Join(chain.Home(), "queue", "lock", "tcpto")).Assume()
	}
	u, err := user.Lookup(name)
	if err != nil {
		return chain.Fail(chain.ExitTemporary, "mxf-check: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	switch os.Geteuid() {
	case uid:
		return nil
	case 0:
	default:
		return chain.Fail(chain.ExitTemporary, "mxf-check: only root can become user %q", name)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return chain.Fail(chain.ExitTemporary, "mxf-check: groups of user %q: %w", name, err)
	}
	groups := make([]int, 0, len(ids))
	for _, id := range ids {
		group, err := strconv.Atoi(id)
		if err != nil {
			return err
		}
		groups = append(groups, group)
	}
	return chain.NewIdentity(uid, gid).Assume(groups...)
}
