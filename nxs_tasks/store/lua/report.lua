-- Count how tasks ended, by name, for the fleet and for one instance; kept for a while.
--
-- Only to compare instances with each other: a report that is sent again counts twice.
--
-- KEYS[1] what the key of a period of the fleet begins with   KEYS[2] the same for the instance
-- ARGV[1] length of a period, s   ARGV[2] seconds for which it is kept
-- ARGV[3], ARGV[4], … for each name five: the name, how many succeeded, how many failed, how many
--   are ranked by how long they took, and the sum of their ranks in thousandths
--
-- Returns nothing.

local kinds = {'ok:', 'failed:', 'ranked:', 'ranks:'}
local period = math.floor(tonumber(redis.call('TIME')[1]) / ARGV[1])
for k = 1, 2 do
  local key = KEYS[k] .. period
  for i = 3, #ARGV, 5 do
    for n, kind in ipairs(kinds) do
      if ARGV[i + n] ~= '0' then
        redis.call('HINCRBY', key, kind .. ARGV[i], ARGV[i + n])
      end
    end
  end
  redis.call('EXPIRE', key, ARGV[2])
end
