// Empty does nothing: every static Go program costs at least as much.
package main

func main() {}
