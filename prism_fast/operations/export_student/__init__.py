"""A student, or any classifier, as the files that other tools run: timm's directory, ONNX, torch.export."""

from prism_fast.operations.export_student.export import FORMATS, Exported, ExportedFile, Format, export_student

__all__ = ["FORMATS", "Exported", "ExportedFile", "Format", "export_student"]
