// golang.org/x/mod/sumdb checks a history: its checkpoint, every entry by the tiles, consistency between checkpoints, and one
// tlog-proof. Usage: tlog <folder> <vkey> <older checkpoint> <file with a tlog-proof> <file with its leaf>
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const width = 256

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func fail(text string, args ...any) { must(0, fmt.Errorf(text, args...)) }

// checkpoint opens a signed note with Go's own code, and reads the three lines of a checkpoint.
func checkpoint(text []byte, verifier note.Verifier) tlog.Tree {
	opened := must(note.Open(text, note.VerifierList(verifier)))
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		fail("not a checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	size := must(strconv.ParseInt(lines[1], 10, 64))
	hash := must(tlog.ParseHash(lines[2]))
	return tlog.Tree{N: size, Hash: hash}
}

// number is the path of a tile's number: x001/x234/067.
func number(n int64) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	return path
}

func read(folder, kind string, n int64, w int) ([]byte, error) {
	path := filepath.Join(folder, "tile", kind, number(n))
	if w != width {
		path += fmt.Sprintf(".p/%d", w)
	}
	return os.ReadFile(path)
}

// tiles reads them for tlog.TileHashReader, which verifies each against the checkpoint.
type tiles struct{ folder string }

func (t tiles) Height() int { return 8 }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range wanted {
		bytes, err := read(t.folder, strconv.Itoa(tile.L), tile.N, tile.W)
		if err != nil {
			return nil, err
		}
		data = append(data, bytes)
	}
	return data, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func main() {
	folder, vkey := os.Args[1], os.Args[2]
	verifier := must(note.NewVerifier(strings.TrimSpace(vkey)))
	tree := checkpoint(must(os.ReadFile(filepath.Join(folder, "checkpoint"))), verifier)
	hashes := tlog.TileHashReader(tree, tiles{folder})

	// 1. Every entry: its bundle, against the hash that the verified tiles have for it.
	for n := int64(0); n*width < tree.N; n++ {
		w := int(min(tree.N-n*width, width))
		bundle := must(read(folder, "entries", n, w))
		for i := 0; i < w; i++ {
			if len(bundle) < 2 {
				fail("bundle %d ends at entry %d", n, i)
			}
			length := int(binary.BigEndian.Uint16(bundle))
			if len(bundle) < 2+length {
				fail("bundle %d ends within entry %d", n, i)
			}
			index := n*width + int64(i)
			held := must(hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)}))
			if held[0] != tlog.RecordHash(bundle[2:2+length]) {
				fail("entry %d is not in the tree", index)
			}
			bundle = bundle[2+length:]
		}
		if len(bundle) != 0 {
			fail("bundle %d has more than %d entries", n, w)
		}
	}

	// 2. An older checkpoint is a prefix.
	older := checkpoint(must(os.ReadFile(os.Args[3])), verifier)
	if older.N >= tree.N {
		fail("the older checkpoint has %d entries, the newer one %d", older.N, tree.N)
	}
	consistent := must(tlog.ProveTree(tree.N, older.N, hashes))
	must(0, tlog.CheckTree(consistent, tree.N, tree.Hash, older.N, older.Hash))

	// 3. A tlog-proof, with nothing of the folder.
	proof, signed, found := strings.Cut(string(must(os.ReadFile(os.Args[4]))), "\n\n")
	lines := strings.Split(proof, "\n")
	if !found || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "index ") {
		fail("not a tlog-proof: %q", proof)
	}
	index := must(strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64))
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		var hash tlog.Hash
		copy(hash[:], must(base64.StdEncoding.DecodeString(line)))
		path = append(path, hash)
	}
	under := checkpoint([]byte(signed), verifier)
	leaf := must(os.ReadFile(os.Args[5]))
	must(0, tlog.CheckRecord(path, under.N, under.Hash, index, tlog.RecordHash(leaf)))
	fmt.Printf("%d entries hold, %d of them under an older checkpoint, and entry %d by its proof\n", tree.N, older.N, index)
}
