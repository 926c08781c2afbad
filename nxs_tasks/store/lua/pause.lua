-- Pause a queue or a task. One that is paused already keeps its time.
--
-- KEYS[1] set: names that are paused   KEYS[2] hash: since when, by whom and why, JSON
-- ARGV[1] name   ARGV[2] field of the hash   ARGV[3] by whom   ARGV[4] why
--
-- Returns 1, or 0 if it was paused before: then by whom and why are replaced if a reason is given.

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local new = redis.call('SADD', KEYS[1], ARGV[1])
local known = redis.call('HGET', KEYS[2], ARGV[2])
local since = new == 0 and known and string.match(known, '^{"since":([%d.]+)') or now
if new == 1 or not known or ARGV[4] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[2], '{"since":' .. since .. ',"by":' .. cjson.encode(ARGV[3])
    .. ',"reason":' .. cjson.encode(ARGV[4]) .. '}')
end
return new
