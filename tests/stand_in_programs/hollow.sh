# Ends well with an archive that holds no table.
printf 'PGDMP\001\016\000\004\010\001\000\000\000\000\000\000\000\000\000\000\000'
exit 0
