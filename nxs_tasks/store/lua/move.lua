-- Move waiting messages of an instance's own queue to the front of another, if the instance still
-- is in the state and epoch that were judged, and the messages are still those that were read.
--
-- The caller reads from the left (newest first) and rewrites each message. Taking from the left
-- and appending at the right makes the oldest the next to be taken, in the order they had.
--
-- KEYS[1] hash: the instance's record
-- KEYS[2] list: from       KEYS[3] list: to
-- ARGV[1] epoch   ARGV[2] state   ARGV[3], ARGV[4], … pairs: message as read, message to write
--
-- Returns the number moved (it stops at the first message that is another), -1 if the
-- precondition does not hold.

local record = redis.call('HMGET', KEYS[1], 'state', 'epoch')
if record[1] ~= ARGV[2] or record[2] ~= ARGV[1] then
  return -1
end
local moved = 0
for i = 3, #ARGV, 2 do
  if redis.call('LINDEX', KEYS[2], 0) ~= ARGV[i] then
    break
  end
  redis.call('LPOP', KEYS[2])
  redis.call('RPUSH', KEYS[3], ARGV[i + 1])
  moved = moved + 1
end
return moved
