# Verifies messages from standard input: lines "name text" of TXT records, an empty
# line, then each message after a line with its length. Prints a line for each.
import sys
import dkim

read = sys.stdin.buffer
records = {}
for line in iter(read.readline, b"\n"):
    name, text = line.rstrip(b"\n").split(b" ", 1)
    records[name.rstrip(b".")] = text

def lookup(name, timeout=0):
    return records.get(name.rstrip(b"."))

for length in iter(read.readline, b""):
    message = read.read(int(length))
    results = []
    try:
        verifier = dkim.DKIM(message)
        count = sum(name.lower() == b"dkim-signature" for name, _ in verifier.headers)
        for i in range(count):
            try:
                results.append("pass" if verifier.verify(i, lookup) else "fail")
            except Exception as e:
                results.append(repr(e).replace("\t", " "))
    except Exception as e:
        results.append(repr(e).replace("\t", " "))
    print("\t".join(results))
