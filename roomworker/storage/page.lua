-- Reads some entries of a stream, as many as fit into a number of bytes, but at least one.
--
-- KEYS  1 room:{R}:out (stream)
-- ARGV  1 XRANGE or XREVRANGE   2 first id, with ( if it is not to be included   3 last id   4 bytes
-- Returns the entries as XRANGE does.

local page, bytes, from = {}, 0, ARGV[2]
while bytes < tonumber(ARGV[4]) do
  local found = redis.call(ARGV[1], KEYS[1], from, ARGV[3], 'COUNT', 1)[1]
  if not found then break end
  for _, part in ipairs(found[2]) do
    bytes = bytes + #part
  end
  if page[1] and bytes > tonumber(ARGV[4]) then break end
  page[#page + 1] = found
  from = '(' .. found[1]
end
return page
