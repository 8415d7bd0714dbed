-- Health of a posttrain job, for Argo CD. The status follows kstatus: observedGeneration, Reconciling and Stalled (which are
-- true when abnormal) and Ready. Beyond kstatus: a suspended job is Suspended, and the message says how far it is.
-- No library is used but the base: Argo CD opens no other for scripts of a ConfigMap.
local health = {}

if obj.status == nil or obj.status.observedGeneration == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  health.status = "Progressing"
  health.message = "Waiting for the operator to look at it"
  return health
end

local told = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  told[condition.type] = condition
end

local function holds(kind)
  return told[kind] ~= nil and told[kind].status == "True"
end

local ready = told["Ready"] or {}
health.message = obj.status.phase or "Pending"
if ready.reason ~= nil and ready.reason ~= obj.status.phase then
  health.message = health.message .. " (" .. ready.reason .. ")"
end
health.message = health.message .. ": " .. (ready.message or "")

if holds("Stalled") then
  health.status = "Degraded"
elseif holds("Ready") then
  health.status = "Healthy"
elseif holds("Suspended") then
  health.status = "Suspended"
else
  health.status = "Progressing"
  local progress = obj.status.progress
  if holds("Running") and progress ~= nil then
    if progress.percent ~= nil then
      health.message = health.message .. ", " .. progress.percent .. " %"
    end
    if progress.headline ~= nil then
      health.message = health.message .. ", " .. progress.headline
    end
  end
end
return health
