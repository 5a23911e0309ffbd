// Package browser looks at the admin pages with a real browser: Debian's chromium,
// through chromedp. It is a module of its own, so that the programs' has none of that.
package browser
