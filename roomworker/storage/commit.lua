-- Commits one change of one room, all of it or nothing, and only over the version it was made from.
--
-- KEYS  1 room:{R} (hash)   2 room:{R}:out (stream)   3 room:{R}:closed_sessions (hash)
-- ARGV  1 expected version ('' = the room does not exist)   2 new version ('' = delete the room)
--       3 token of this commit   4 entries that the stream is trimmed to ('' = not trimmed)
--       5 seconds that closed sessions are kept
--       6 outgoing messages ('' = none)   7 token of the room's last deletion, if it does not exist ('' = unknown)
--       8 number of names and values to set, then these
--       then number of names to delete, then these; the same twice for the closed sessions
-- Returns OK, APPLIED (this very commit was stored before: its answer was lost), STALE (another version is stored) or
-- FAILED (a key is of another type).
--
-- `storage/store.py` puts the flag `allow-oom` before the script: answers, departures and deletions have to be stored
-- while Redis has no memory left, and what makes a room grow is refused before (core/limits.py).
--
-- Everything that can fail is checked before the first write: a script that fails midway keeps what it wrote.

local room, out, closed = KEYS[1], KEYS[2], KEYS[3]
local expected, version, token = ARGV[1], ARGV[2], ARGV[3]

local at = 8
local function section()
  local count = tonumber(ARGV[at])
  local first = at + 1
  at = first + count
  return first, at - 1
end
local set_first, set_last = section()
local del_first, del_last = section()
local close_first, close_last = section()
local forget_first, forget_last = section()

local function holds(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
if not (holds(room, 'hash') and holds(out, 'stream') and holds(closed, 'hash')) then
  return 'FAILED'
end

local held = redis.call('HMGET', room, 'v', 'token')
-- a room that was created and deleted meanwhile is not the room that never existed
local deleted = not held[1] and redis.call('HGET', closed, '|deleted') or ''
if (held[1] or '') ~= expected or deleted ~= ARGV[7] then
  if held[2] == token or deleted == token then return 'APPLIED' end
  return 'STALE'
end

-- a thousand arguments at a time, because Lua's stack does not hold many more
local function each_chunk(command, key, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(ARGV, from, math.min(from + 999, last)))
  end
end

if version == '' then
  redis.call('DEL', room, out)
  redis.call('HSET', closed, '|deleted', token)
else
  each_chunk('HSET', room, set_first, set_last)
  each_chunk('HDEL', room, del_first, del_last)
  redis.call('HSET', room, 'v', version, 'token', token)
  if ARGV[6] ~= '' then
    -- never by time: Redis' clock may be set, and all entries would be old at once
    if ARGV[4] ~= '' then
      redis.call('XADD', out, 'MAXLEN', '~', ARGV[4], '*', 'm', ARGV[6])
    else
      redis.call('XADD', out, '*', 'm', ARGV[6])
    end
  end
end

each_chunk('HSET', closed, close_first, close_last)
each_chunk('HDEL', closed, forget_first, forget_last)
if version == '' or close_last >= close_first then
  redis.call('EXPIRE', closed, ARGV[5])
end
return 'OK'
