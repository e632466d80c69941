//go:build unix && !linux

package dial

// choosePortLater does nothing: the system has no such option.
func choosePortLater(int) {}
