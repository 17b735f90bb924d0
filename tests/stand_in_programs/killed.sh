# Is killed in the middle.
printf 'PGDMP\001\016\000\004\010\001\000\000\000'
kill -9 $$
