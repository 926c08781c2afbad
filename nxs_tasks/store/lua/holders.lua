-- Every process that may hold messages, and how many it holds.
--
-- KEYS[1] set: `<instance id>:<epoch>`
-- ARGV[1] key of an in-flight hash, up to the instance id
--
-- Returns one text for each process: `<instance id>:<epoch>:<held>`.

local found = {}
for _, holder in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  found[#found + 1] = holder .. ':' .. redis.call('HLEN', ARGV[1] .. holder)
end
return found
