# First base of every config that inherits `mmdet::` or `mmseg::` bases: mmengine runs bases in order, and with
# sspyr_mm imported it finds the next ones also where a fork provides them. An import statement would switch mmengine
# to its lazy mode, so this is a call.
__import__("sspyr_mm")

custom_imports = dict(imports=["sspyr_mm.registration"], allow_failed_imports=False)
