-- Have keys expire so long from now; keys that do not exist are passed over.
--
-- KEYS[1], KEYS[2], … keys
-- ARGV[1] milliseconds
--
-- Returns how many will.

local count = 0
for _, key in ipairs(KEYS) do
  count = count + redis.call('PEXPIRE', key, ARGV[1])
end
return count
