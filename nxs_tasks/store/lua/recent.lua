-- How tasks of some names have ended lately.
--
-- KEYS[1] what the key of a period of the fleet begins with   KEYS[2] the same for the instance
-- ARGV[1] length of a period, s
-- ARGV[2], ARGV[3], … for each name two: how far back to look, s; the name
--
-- Returns {server time, for each name eight: how many succeeded, failed and are ranked in the
-- fleet, the sum of their ranks in thousandths, and of these at the instance}. The period in which a
-- look begins counts as a whole.

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local found = {time[1] .. '.' .. string.format('%06d', tonumber(time[2]))}
for i = 2, #ARGV, 2 do
  local first = math.floor((now - tonumber(ARGV[i])) / ARGV[1])
  local name = ARGV[i + 1]
  for k = 1, 2 do
    local total = {0, 0, 0, 0}
    for period = first, math.floor(now / ARGV[1]) do
      local counts = redis.call('HMGET', KEYS[k] .. period, 'ok:' .. name, 'failed:' .. name,
        'ranked:' .. name, 'ranks:' .. name)
      for n = 1, 4 do total[n] = total[n] + tonumber(counts[n] or 0) end
    end
    for n = 1, 4 do found[#found + 1] = total[n] end
  end
end
return found
