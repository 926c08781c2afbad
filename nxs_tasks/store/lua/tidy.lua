-- Remove the profiles that no instance has any more: every deploy may leave one behind.
--
-- KEYS[1] set: members
-- KEYS[2] hash: profiles by digest
-- ARGV[1] key of a record, up to the id
--
-- Returns the number removed.

local used = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  used[redis.call('HGET', ARGV[1] .. id, 'profile') or ''] = true
end
local removed = 0
for _, digest in ipairs(redis.call('HKEYS', KEYS[2])) do
  if not used[digest] then
    removed = removed + redis.call('HDEL', KEYS[2], digest)
  end
end
return removed
