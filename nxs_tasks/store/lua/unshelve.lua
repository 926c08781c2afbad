-- Take messages off a shelf and put each into a list.
--
-- KEYS[1] hash: the shelf   KEYS[2] sorted set: its index
-- ARGV[1] "front" to be taken next, "back" to wait at the end of the line, "drop" to be no more
-- ARGV[2], … for each message three: entry id, the text to write, the list to write it to; an empty
--   text or list means as the entry has it
--
-- Returns the number taken.

local taken = 0
for i = 2, #ARGV, 3 do
  local id, text, list = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local entry = redis.call('HGET', KEYS[1], id)
  if entry then
    local line = string.find(entry, '\n', 1, true) or 0
    if ARGV[1] ~= 'drop' then
      if list == '' then
        list = cjson.decode(string.sub(entry, 1, line - 1)).list
      end
      if text == '' then
        text = string.sub(entry, line + 1)
      end
      redis.call(ARGV[1] == 'front' and 'RPUSH' or 'LPUSH', list, text)
    end
    redis.call('HDEL', KEYS[1], id)
    taken = taken + 1
  end
  redis.call('ZREM', KEYS[2], id)
end
return taken
