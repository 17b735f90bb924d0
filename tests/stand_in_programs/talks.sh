# Says a megabyte before it fails.
head -c 1000000 /dev/zero | tr '\000' 'x' >&2
echo "last words" >&2
exit 2
