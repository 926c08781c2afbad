-- Move waiting messages of an instance's own queue to the front of another, if the instance still
-- is in the state and epoch that were judged.
--
-- The caller reads from the left (newest first), chooses, and rewrites each message. A message
-- that has gone meanwhile is passed over. Taking the newest first and appending each at the right
-- makes the oldest the next to be taken, in the order they had.
--
-- KEYS[1] hash: the instance's record
-- KEYS[2] list: from       KEYS[3] list: to
-- ARGV[1] epoch   ARGV[2] state   ARGV[3], ARGV[4], … pairs: message as read, message to write
--
-- Returns the number moved, -1 if the precondition does not hold.

local record = redis.call('HMGET', KEYS[1], 'state', 'epoch')
if record[1] ~= ARGV[2] or record[2] ~= ARGV[1] then
  return -1
end
local moved = 0
for i = 3, #ARGV, 2 do
  if redis.call('LREM', KEYS[2], 1, ARGV[i]) == 1 then
    redis.call('RPUSH', KEYS[3], ARGV[i + 1])
    moved = moved + 1
  end
end
return moved
