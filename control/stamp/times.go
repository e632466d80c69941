//go:build !darwin && !freebsd && !netbsd

package stamp

import "syscall"

func modified(s *syscall.Stat_t) moment { return moment{int64(s.Mtim.Sec), int64(s.Mtim.Nsec)} }

func changed(s *syscall.Stat_t) moment { return moment{int64(s.Ctim.Sec), int64(s.Ctim.Nsec)} }
