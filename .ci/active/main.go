// Command active prints the tier in use.
package main

import (
	"fmt"

	"github.com/subquad/subquad/asm"
)

func main() { fmt.Println(asm.Active()) }
