module lethe.example/tlogcheck

go 1.27

require golang.org/x/mod v0.36.1

// The copy that the pinned toolchain carries for its own use.
replace golang.org/x/mod => ./x-mod
