# Writes the beginning of an archive and nothing more.
printf 'PGDMP\001\016\000\004\010\001\000\000\000'
sleep 1000
