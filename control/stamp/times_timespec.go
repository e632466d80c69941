//go:build darwin || freebsd || netbsd

package stamp

import "syscall"

func modified(s *syscall.Stat_t) moment {
	return moment{int64(s.Mtimespec.Sec), int64(s.Mtimespec.Nsec)}
}

func changed(s *syscall.Stat_t) moment {
	return moment{int64(s.Ctimespec.Sec), int64(s.Ctimespec.Nsec)}
}
