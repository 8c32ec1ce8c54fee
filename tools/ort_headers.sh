#!/usr/bin/env bash
# Puts onnxruntime's C headers into a folder, out of Debian's package of them. Installs nothing.
#   tools/ort_headers.sh FOLDER
# The system's own release is asked first, then Debian 13 on the system's own mirror, the oldest
# release that has the package. Elsewhere: take the headers from an onnxruntime release and give
# their folder to CMake as BIRTHMARK_ORT_INCLUDE.
set -euo pipefail
folder=$1
package=libonnxruntime-dev
release=trixie

fail() { echo "error: onnxruntime's C headers: $*" >&2; exit 1; }

if [ -e "$folder/onnxruntime_c_api.h" ] || [ -e /usr/include/onnxruntime/onnxruntime_c_api.h ]; then
  exit 0
fi
for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || fail "no $tool here; set BIRTHMARK_ORT_INCLUDE by hand"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
download() { (cd "$work" && apt-get -qq "$@" download "$package") > "$work/log" 2>&1; }

if ! download; then
  mirror=$(apt-get update --print-uris 2>/dev/null |
    sed -n "s#^'\(.*/debian\)/*/dists/.*#\1#p" | head -n1 || true)
  [ -n "$mirror" ] || fail "this system has no Debian mirror; set BIRTHMARK_ORT_INCLUDE by hand"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$keyring] $mirror $release main" > "$work/sources.list"
  mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
  own=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State=$work/state" -o "Dir::State::status=/var/lib/dpkg/status"
    -o "Dir::Cache=$work/cache")
  # As root, apt would read as another user, who may not look into this folder.
  [ "$(id -u)" != 0 ] || own+=(-o APT::Sandbox::User=root)
  apt-get -qq "${own[@]}" update > "$work/log" 2>&1 || fail "$(tail -n1 "$work/log")"
  download "${own[@]}" || fail "$(tail -n1 "$work/log")"
fi
dpkg-deb --extract "$work/$package"_*.deb "$work/package"
mkdir -p "$folder"
cp "$work/package/usr/include/onnxruntime/"*.h "$folder"
echo "== onnxruntime's C headers: from $(basename "$work/$package"_*.deb)"
