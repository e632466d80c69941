// Package check answers, before a message does, whether the settings of a host are in order, where
// mail for a host would go and why, and whether it would be taken there. It asks the code that
// delivers, and delivers nothing.
//
//	mxf-check(8)   what is shown, for a person and as JSON
package check

// A Level is how bad a finding is.
type Level int

// The levels, from good to bad.
const (
	OK Level = iota
	Note
	Warning // mail goes, perhaps not as it is meant
	Error   // some mail waits, or worse
)

// String returns the word that is shown.
func (l Level) String() string { return [...]string{"ok", "note", "warning", "error"}[l] }

// A Finding is one thing that was found about the settings. Its texts have no secret.
type Finding struct {
	Level Level  `json:"level"`
	File  string `json:"file"` // below home, for example control/smtproutes; empty: it is about no file
	Line  int    `json:"line"` // from 1; 0: the file as a whole
	What  string `json:"what"` // lower case, no full stop; foreign text is quoted
	Do    string `json:"do"`   // what leads to the mend; empty where nothing is to be done
}
