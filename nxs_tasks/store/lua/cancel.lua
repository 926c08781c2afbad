-- Remember that tasks are cancelled; one that is already is remembered for longer.
--
-- KEYS[1] sorted set: cancelled ids, by the time when they may be forgotten
-- KEYS[2] hash: by whom and when, JSON
-- ARGV[1] seconds to remember   ARGV[2] by whom   ARGV[3], … ids
--
-- Returns for each id 1, or 0 if it was cancelled before.

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
local note = '{"at":' .. now .. ',"by":' .. cjson.encode(ARGV[2]) .. '}'
local forget_at = string.format('%.3f', tonumber(now) + tonumber(ARGV[1]))
local new = {}
for i = 3, #ARGV do
  new[#new + 1] = redis.call('ZADD', KEYS[1], forget_at, ARGV[i])
  redis.call('HSETNX', KEYS[2], ARGV[i], note)
end
return new
