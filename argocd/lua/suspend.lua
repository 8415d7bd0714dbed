-- The pods save a checkpoint and end; nothing of the work is lost.
if obj.spec.run == nil then
  obj.spec.run = {}
end
obj.spec.run.suspend = true
return obj
