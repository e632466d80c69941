// Empty does nothing: what it costs is what any static Go program costs.
package main

func main() {}
