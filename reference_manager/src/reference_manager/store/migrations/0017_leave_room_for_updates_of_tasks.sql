-- A claim and a report change no indexed column. With room for both row versions in a page, they change no index either
-- (HOT updates). Applies to rows that are inserted from now on.
ALTER TABLE tasks SET (fillfactor = 50);
