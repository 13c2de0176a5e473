-- Returns the bytes that a room takes, or -1 if one of its keys has too many fields to be counted in a short time.
--
-- KEYS  1 room:{R}   2 room:{R}:closed_sessions
-- ARGV  1 the most fields that are counted

local bytes = 0
for _, key in ipairs(KEYS) do
  local is_hash = redis.call('TYPE', key).ok == 'hash'
  if is_hash and redis.call('HLEN', key) > tonumber(ARGV[1]) then
    return -1
  end
  local used = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', 0)
  if type(used) == 'number' then
    bytes = bytes + used
  elseif is_hash then
    -- a user who may not ask for MEMORY
    for _, name in ipairs(redis.call('HKEYS', key)) do
      bytes = bytes + #name + redis.call('HSTRLEN', key, name)
    end
  end
end
return bytes
