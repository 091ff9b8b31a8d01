// Tlogcheck asks golang.org/x/mod whether a log that Lethe published holds.
//
// Notes, hashes, tiles and proofs are judged by sumdb/note and sumdb/tlog, and
// signatures by the standard library.  What those do not know of C2SP is here:
// the three lines of a checkpoint, the file of a proof, and the two kinds of
// cosignature.
//
//	tlogcheck head   KEYS NOTE               every key of KEYS has signed the checkpoint
//	tlogcheck tree   KEYS NOTE FOLDER        every tile and bundle below FOLDER is of that tree
//	tlogcheck record KEYS PROOF              the leaf that a .tlog-proof carries is in the log
//	tlogcheck growth KEYS OLD NEW PROOF      the newer checkpoint extends the older
//
// It exits 0 if all holds, 1 if not, and 2 if it was asked wrongly.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const proofHeader = "c2sp.org/tlog-proof@v1"

// head is what a checkpoint states.
type head struct {
	origin string
	tree   tlog.Tree
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	wanted := map[string]int{"head": 3, "tree": 4, "record": 3, "growth": 5}
	if len(args) == 0 || wanted[args[0]] != len(args) {
		fmt.Fprintln(os.Stderr, "usage: tlogcheck head|tree|record|growth KEYS ...")
		os.Exit(2)
	}
	keys, err := readKeys(args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "keys:", err)
		os.Exit(2)
	}
	switch args[0] {
	case "head":
		_, err = openFile(args[2], keys)
	case "tree":
		err = checkTree(keys, args[2], args[3])
	case "record":
		err = checkRecord(keys, args[2])
	case "growth":
		err = checkGrowth(keys, args[2], args[3], args[4])
	}
	return err
}

// readKeys returns the keys of a file, a verifier key a line.
func readKeys(path string) ([]note.Verifier, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var keys []note.Verifier
	for vkey := range strings.Lines(string(text)) {
		key, err := newVerifier(strings.TrimSuffix(vkey, "\n"))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// openFile returns the checkpoint of a note that every one of keys has signed.
func openFile(path string, keys []note.Verifier) (head, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return head{}, err
	}
	return open(text, keys)
}

func open(text []byte, keys []note.Verifier) (head, error) {
	opened, err := note.Open(text, note.VerifierList(keys...))
	if err != nil {
		return head{}, err
	}
	if len(opened.Sigs) != len(keys) {
		return head{}, fmt.Errorf("%d of %d keys have signed", len(opened.Sigs), len(keys))
	}
	found, err := parseHead(opened.Text)
	if err != nil {
		return head{}, err
	}
	for _, key := range keys {
		if key.Name() == found.origin {
			return found, nil
		}
	}
	return head{}, errors.New("no key of the origin's name has signed")
}

// parseHead reads a checkpoint without extension lines.
func parseHead(text string) (head, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] == "" || lines[3] != "" {
		return head{}, errors.New("a checkpoint is origin, size and root")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return head{}, errors.New("the size is not a decimal number")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return head{}, err
	}
	return head{lines[0], tlog.Tree{N: size, Hash: root}}, nil
}

// checkTree reads every leaf hash through tiles that lead to the root, and every entry to its leaf hash.
func checkTree(keys []note.Verifier, notePath, folder string) error {
	at, err := openFile(notePath, keys)
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(at.tree, tiles(folder))
	root, err := tlog.TreeHash(at.tree.N, reader)
	if err != nil {
		return err
	}
	if root != at.tree.Hash {
		return errors.New("the tiles do not lead to the root")
	}
	for first := int64(0); first < at.tree.N; first += 256 {
		tile := tlog.Tile{H: 8, L: 0, N: first / 256, W: int(min(256, at.tree.N-first))}
		indexes := make([]int64, tile.W)
		for i := range indexes {
			indexes[i] = tlog.StoredHashIndex(0, first+int64(i))
		}
		hashes, err := reader.ReadHashes(indexes)
		if err != nil {
			return err
		}
		if err := checkBundle(folder, tile, hashes); err != nil {
			return err
		}
	}
	return nil
}

// checkBundle returns nil if the entries of the bundle beside a tile have these leaf hashes.
func checkBundle(folder string, tile tlog.Tile, hashes []tlog.Hash) error {
	path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
	rest, err := os.ReadFile(filepath.Join(folder, path))
	if err != nil {
		return err
	}
	for i, hash := range hashes {
		if len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
			return fmt.Errorf("%s ends within entry %d", path, i)
		}
		end := 2 + int(binary.BigEndian.Uint16(rest))
		if tlog.RecordHash(rest[2:end]) != hash {
			return fmt.Errorf("%s: entry %d does not have the hash of its leaf", path, i)
		}
		rest = rest[end:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%s goes on after its last entry", path)
	}
	return nil
}

// checkRecord returns nil if a .tlog-proof leads from the leaf in its extra line to its checkpoint.
func checkRecord(keys []note.Verifier, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	top, checkpoint, found := strings.Cut(string(text), "\n\n")
	lines := strings.Split(top, "\n")
	if !found || len(lines) < 3 || lines[0] != proofHeader {
		return errors.New("not a proof with a leaf")
	}
	at, err := open([]byte(checkpoint), keys)
	if err != nil {
		return err
	}
	leaf, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	proof, err := parseHashes(lines[3:])
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, at.tree.N, at.tree.Hash, index, tlog.RecordHash(leaf))
}

// checkGrowth returns nil if the hashes of a file, a line each, lead from one checkpoint to the other.
func checkGrowth(keys []note.Verifier, oldPath, newPath, proofPath string) error {
	before, err := openFile(oldPath, keys)
	if err != nil {
		return err
	}
	after, err := openFile(newPath, keys)
	if err != nil {
		return err
	}
	if before.origin != after.origin {
		return errors.New("two logs")
	}
	text, err := os.ReadFile(proofPath)
	if err != nil {
		return err
	}
	proof, err := parseHashes(strings.Fields(string(text)))
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, after.tree.N, after.tree.Hash, before.tree.N, before.tree.Hash)
}

func parseHashes(lines []string) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

// tiles reads the tiles of a published log; C2SP leaves the height out of their paths.
type tiles string

func (folder tiles) Height() int { return 8 }

func (folder tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	read := make([][]byte, len(wanted))
	for i, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(folder), path))
		if err != nil {
			return nil, err
		}
		read[i] = data
	}
	return read, nil
}

func (folder tiles) SaveTiles([]tlog.Tile, [][]byte) {}
