package weights

import (
	"bytes"
	"strings"
)

// sniffBytes is how many bytes of a file tell what it is.
const sniffBytes = 512

// kinds are beginnings of files that are given by mistake.
var kinds = []struct{ magic, what string }{
	{"version https://git-lfs.github.com", "a Git LFS pointer: the file itself has not been downloaded (git lfs pull)"},
	{"GGUF", "a GGUF file, of llama.cpp"},
	{"\x1f\x8b", "a gzip file: unpack it first"},
	{"BZh", "a bzip2 file: unpack it first"},
	{"\xfd7zXZ\x00", "an xz file: unpack it first"},
	{"\x28\xb5\x2f\xfd", "a Zstandard file: unpack it first"},
	{"7z\xbc\xaf\x27\x1c", "a 7-Zip file: unpack it first"},
	{"Rar!", "a RAR file: unpack it first"},
	{"\x89HDF\r\n", "an HDF5 file, of Keras for instance"},
	{"\x93NUMPY", "a NumPy array"},
	{"##gff-version", "a GFF file"},
	{"##fileformat=VCF", "a VCF file"},
	{">", "a FASTA file"},
	{"%PDF", "a PDF file"},
	{"\x7fELF", "a program"},
	{"PK\x05\x06", "an empty zip file"},
	{"\x80\x02", "a Python pickle, which is not how torch.save writes"},
	{"\x80\x03", "a Python pickle, which is not how torch.save writes"},
	{"\x80\x04", "a Python pickle, which is not how torch.save writes"},
	{"\x80\x05", "a Python pickle, which is not how torch.save writes"},
}

// Sniff says what kind of file begins so, "a GGUF file" for instance; "" for one that it
// does not know, or that this package reads.
func Sniff(first []byte) string {
	for _, k := range kinds {
		if bytes.HasPrefix(first, []byte(k.magic)) {
			return k.what
		}
	}
	text := strings.ToLower(strings.TrimLeft(string(bytes.TrimPrefix(first, []byte("\xef\xbb\xbf"))), " \t\r\n"))
	switch {
	case strings.HasPrefix(text, "<!doctype html"), strings.HasPrefix(text, "<html"), strings.HasPrefix(text, "<head"):
		return "an HTML page: the download went wrong"
	case strings.HasPrefix(text, "<?xml"):
		return "an XML file"
	case strings.HasPrefix(text, "{"):
		return "a JSON file"
	case strings.HasPrefix(text, "@") && strings.Contains(text, "\n+"):
		return "a FASTQ file"
	}
	return ""
}
