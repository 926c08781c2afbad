-- How tasks of some names have ended lately.
--
-- KEYS[1] what the key of a period of the fleet begins with   KEYS[2] the same for the instance
-- ARGV[1] length of a period, s
-- ARGV[2], ARGV[3], … for each name two: how far back to look, s; the name
--
-- Returns {server time, for each name four: how many succeeded and failed in the fleet, and of these
-- at the instance}. The period in which a look begins counts as a whole.

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local found = {time[1] .. '.' .. string.format('%06d', tonumber(time[2]))}
for i = 2, #ARGV, 2 do
  local first = math.floor((now - tonumber(ARGV[i])) / ARGV[1])
  for k = 1, 2 do
    for _, kind in ipairs({'ok:', 'failed:'}) do
      local total = 0
      for period = first, math.floor(now / ARGV[1]) do
        total = total + tonumber(redis.call('HGET', KEYS[k] .. period, kind .. ARGV[i + 1]) or 0)
      end
      found[#found + 1] = total
    end
  end
end
return found
