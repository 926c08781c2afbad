-- How tasks of some names have ended in this minute and the one before.
--
-- KEYS[1] what the key of a minute of the fleet begins with   KEYS[2] the same for the instance
-- ARGV[1], ARGV[2], … names
--
-- Returns {server time, for each name four: how many succeeded and failed in the fleet, and of these
-- at the instance}.

local time = redis.call('TIME')
local minute = math.floor(tonumber(time[1]) / 60)
local found = {time[1] .. '.' .. string.format('%06d', tonumber(time[2]))}
for _, name in ipairs(ARGV) do
  for k = 1, 2 do
    for _, kind in ipairs({'ok:', 'failed:'}) do
      local now = redis.call('HGET', KEYS[k] .. minute, kind .. name) or 0
      local before = redis.call('HGET', KEYS[k] .. (minute - 1), kind .. name) or 0
      found[#found + 1] = tonumber(now) + tonumber(before)
    end
  end
end
return found
