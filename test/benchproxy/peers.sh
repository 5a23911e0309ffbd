#!/usr/bin/env bash
# peers.sh <folder>: puts the programs nginx and haproxy into the folder, which
# start those of this machine where it has them. Where it has not, Debian's
# packages are unpacked there and not installed: that needs no root, and no
# service is started that nobody asked for.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=()
for program in nginx haproxy; do
	[[ -x $folder/$program ]] && continue
	if path=$(command -v "$program"); then
		ln -s "$path" "$folder/$program"
	else
		missing+=("$program")
	fi
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
	echo "missing: ${missing[*]}; this is no Debian, so install them yourself, or name only the other targets with -targets" >&2
	exit 1
fi

echo "unpacking Debian's ${missing[*]} into $folder"
root=$folder/root
mkdir -p "$root" "$folder/debs/partial"
download() {
	apt-get install -q -y --no-install-recommends --download-only \
		-o Dir::Cache::archives="$folder/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User="" "${missing[@]}"
}
if ! download; then
	if ((EUID != 0)); then
		echo "${missing[*]} cannot be had: is apt-get update to be run as root?" >&2
		exit 1
	fi
	apt-get -q update
	download
fi
for deb in "$folder"/debs/*.deb; do
	dpkg-deb -x "$deb" "$root"
done
rm -r "$folder/debs"
libraries=$(find "$root" -name 'lib*.so*' -printf '%h\n' | sort -u | paste -sd:)
for program in "${missing[@]}"; do
	cat >"$folder/$program" <<-EOF
		#!/bin/sh
		LD_LIBRARY_PATH='$libraries' exec '$root/usr/sbin/$program' "\$@"
	EOF
	chmod +x "$folder/$program"
done
