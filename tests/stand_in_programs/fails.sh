# Writes the beginning of an archive and fails.
printf 'PGDMP\001\016\000\004\010\001\000\000\000'
echo "pg_dump: error: the disk is on fire; PGPASSWORD is $PGPASSWORD" >&2
exit 1
