//go:build !linux

package main

import "errors"

func forget([]string) error {
	return errors.New("dropping files from the page cache is only known on Linux")
}
