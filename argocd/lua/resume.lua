-- The next attempt goes on from the checkpoint; it costs no retry.
if obj.spec.run == nil then
  obj.spec.run = {}
end
obj.spec.run.suspend = false
return obj
