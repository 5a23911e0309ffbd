// Package deb tests the Debian packages: what is in them, and what their scripts do
// to a machine when they are installed, upgraded, removed and purged. It needs root,
// and runs with make test-system.
package deb
