//go:build !linux

package remote

// fionread is the BSDs' FIONREAD, _IOR('f', 127, int).
const fionread = 0x4004667f
