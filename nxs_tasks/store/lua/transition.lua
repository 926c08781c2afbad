-- Move an instance to another state, if it still is in the state and epoch that were judged.
--
-- KEYS[1] hash: the instance's record
-- KEYS[2] stream: transitions
-- ARGV[1] instance id   ARGV[2] epoch   ARGV[3] source state   ARGV[4] target state
-- ARGV[5] event   ARGV[6] reason   ARGV[7] evidence JSON   ARGV[8] longest stream
-- ARGV[9] "1" if the instance is lost by this and nobody had planned it
--
-- Returns {1, stream id}, or {0, "<state>:<epoch>"} as found.

local KEPT = 8 -- losses that are remembered

local function with_one_more(known, at)
  local losses = (known and known ~= '' and known .. ',' or '') .. at
  local _, commas = string.gsub(losses, ',', '')
  return commas < KEPT and losses or (string.gsub(losses, '^[^,]*,', ''))
end

local record = redis.call('HMGET', KEYS[1], 'state', 'epoch')
if record[1] ~= ARGV[3] or record[2] ~= ARGV[2] then
  return {0, (record[1] or 'none') .. ':' .. (record[2] or '0')}
end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
redis.call('HSET', KEYS[1], 'state', ARGV[4], 'since', now, 'verdict', ARGV[6])
if ARGV[9] == '1' then
  redis.call('HSET', KEYS[1], 'losses', with_one_more(redis.call('HGET', KEYS[1], 'losses'), now))
end
if ARGV[4] == 'GONE' or ARGV[4] == 'FAILED' then
  -- A drain ends with the process that it drained; what a person has cordoned stays cordoned.
  local cordon = redis.call('HMGET', KEYS[1], 'cordoned', 'drain')
  if cordon[2] and cordon[1] == cordon[2] then
    redis.call('HDEL', KEYS[1], 'cordoned')
  end
  redis.call('HDEL', KEYS[1], 'drain')
end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[8], '*', 'at', now,
  'instance', ARGV[1], 'epoch', ARGV[2], 'source', ARGV[3], 'target', ARGV[4],
  'event', ARGV[5], 'reason', ARGV[6], 'evidence', ARGV[7])
return {1, id}
