-- Trims a room's stream to its latest entries, if nobody has committed the room since they were counted.
--
-- KEYS  1 room:{R} (hash)   2 room:{R}:out (stream)
-- ARGV  1 the room's version when the entries were counted   2 the entries that stay
-- Returns the number of entries removed.

if redis.call('HGET', KEYS[1], 'v') ~= ARGV[1] then
  return 0
end
return redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[2])
