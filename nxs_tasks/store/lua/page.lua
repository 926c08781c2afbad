-- Read the next page of a list, from the message that is taken next, while others take from it.
--
-- Where the last page ended is told twice: by the last message that was passed over, and by how
-- many messages then came before its end. The first is right, the second is quick.
--
-- KEYS[1] list
-- ARGV[1] the last message passed over, '' at the start   ARGV[2] how many are passed over
-- ARGV[3] most messages to read
--
-- Returns {length of the list, how many are passed over now, messages, the last to be taken first}.

local passed = tonumber(ARGV[2])
if passed > 0 and redis.call('LINDEX', KEYS[1], -passed) ~= ARGV[1] then
  -- Gone means taken, and so all that came before it.
  local at = redis.call('LPOS', KEYS[1], ARGV[1], 'RANK', -1)
  passed = at and redis.call('LLEN', KEYS[1]) - at or 0
end
local page = redis.call('LRANGE', KEYS[1], -passed - tonumber(ARGV[3]), -passed - 1)
return {redis.call('LLEN', KEYS[1]), passed, page}
