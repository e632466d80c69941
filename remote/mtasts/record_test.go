package mtasts

import (
	"strings"
	"testing"
)

var records = []struct {
	text, id string // id "": as none
}{
	{"v=STSv1; id=20160831085700Z;", "20160831085700Z"},
	{"v=STSv1; id=20160831085700Z", "20160831085700Z"},
	{"v=STSv1;id=1", "1"},
	{"v=STSv1 \t ; \t id=1 \t ; ", "1"},
	{"v=STSv1; id=" + strings.Repeat("a", 32), strings.Repeat("a", 32)},
	{"v=STSv1; note=x.y/z:1; id=aB3; more=1;", "aB3"},
	{"v=STSv1; id=1; id=2", "1"},
	{"v=STSv1; id=" + strings.Repeat("a", 33), ""},
	{"v=STSv1; id=;", ""},
	{"v=STSv1; id=2016-08", ""},
	{"v=STSv1; id=1 2", ""},
	{"v=STSv1; id = 1", ""},
	{"v=STSv1; ID=1", ""},
	{"v=STSv1; note=1", ""},
	{"v=STSv1;", ""},
	{"v=STSv1", ""},
	{"v=STSv1 id=1", ""},
	{"v=STSv10; id=1", ""},
	{"V=STSv1; id=1", ""},
	{" v=STSv1; id=1", ""},
	{"v=STSv1; id=1; junk", ""},
	{"v=STSv1; id=1;; a=b", ""},
	{"v=STSv1; id=1; ;", ""},
	{"v=STSv1; id=1; a=b=c", ""},
	{"v=STSv1; id=1; =b", ""},
	{"v=STSv1; id=1; -a=b", ""},
	{"v=STSv1; id=1; " + strings.Repeat("a", 33) + "=b", ""},
	{"v=STSv1; id=1\x00", ""},
	{"v=STSv1; id=\u00e9", ""},
	{"v=STSv1; id=1; a=\u00e9", ""},
	{"v=spf1 -all", ""},
	{"", ""},
}

func TestParseRecord(t *testing.T) {
	for _, c := range records {
		for _, others := range [][]string{nil, {"v=spf1 -all", "", "v=STSv2; id=9;"}} {
			if id := ParseRecord(append(others, c.text)); id != c.id {
				t.Errorf("%q: id %q, want %q", c.text, id, c.id)
			}
		}
		if id := ParseRecord([]string{c.text, "v=STSv1; id=9;"}); c.id != "" && id != "" {
			t.Errorf("%q and another: id %q", c.text, id)
		}
	}
	if id := ParseRecord([]string{"v=STSv1; id=1;", "v=STSv1; malformed"}); id != "" {
		t.Errorf("one of two malformed: id %q", id)
	}
	if id := ParseRecord(nil); id != "" {
		t.Errorf("no record: id %q", id)
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, c := range records {
		f.Add(c.text, "")
		f.Add(c.text, c.text)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		id := ParseRecord([]string{one, two})
		if id == "" {
			return
		}
		if !IsID(id) || !strings.Contains(one+two, "id="+id) {
			t.Errorf("%q, %q: id %q", one, two, id)
		}
		if strings.HasPrefix(one, "v=STSv1;") && strings.HasPrefix(two, "v=STSv1;") {
			t.Errorf("two records, id %q", id)
		}
	})
}

func TestNames(t *testing.T) {
	if got := RecordName("example.org"); got != "_mta-sts.example.org" {
		t.Error(got)
	}
	if got := HostName("example.org"); got != "mta-sts.example.org" {
		t.Error(got)
	}
	long := strings.Repeat(strings.Repeat("a", 48)+".", 5)[:245]
	if !IsDomain(long[:244]) || RecordName(long) == "" || RecordName(long+"b") != "" || IsDomain(long+"bcdefghi") {
		t.Error("the longest domain has 245 bytes")
	}
	for name, want := range map[string]bool{
		"example.org": true, "xn--bcher-kva.example": true, "_x.example": true, "a": true,
		"Example.org": false, "example.org.": false, "b\u00fccher.example": false, "[192.0.2.1]": false, "": false,
		".": false, "..": false, ".lock-00": false, ".new-0123456789abcdef": false, "../x": false, "a/b": false, "a\x00": false,
	} {
		if IsDomain(name) != want {
			t.Errorf("%q: %v, want %v", name, !want, want)
		}
	}
}
